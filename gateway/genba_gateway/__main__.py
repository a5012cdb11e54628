"""``python -m genba_gateway`` is the ``genba`` command."""

from genba_gateway.cli import main

main()
