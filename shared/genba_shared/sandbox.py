"""Gives up, for this process and for good, what a decoder never needs: network, files, programs. Knows nothing of
videos or pictures.

A seccomp filter (Linux, x86-64 and arm64) answers EACCES to the system calls below. Elsewhere, or where the kernel refuses the filter,
``forbid`` returns False and only the limits of ``limit`` and the parent's clock remain.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import platform
import resource
import struct
import sys

_PR_SET_NO_NEW_PRIVS, _PR_SET_SECCOMP, _SECCOMP_MODE_FILTER = 38, 22, 2
_PR_SET_DUMPABLE, _PR_SET_PDEATHSIG, _SIGKILL = 4, 1, 9

# System call numbers: socket connect bind listen accept accept4 sendto sendmsg socketpair execve execveat fork vfork
# ptrace open openat openat2 creat unlink unlinkat rename renameat renameat2 mkdir mkdirat link linkat symlink
# symlinkat chmod fchmodat kill tkill mount umount2 chroot bpf io_uring_setup process_vm_readv process_vm_writev
# keyctl add_key request_key unshare setns
_FORBIDDEN = {
    "x86_64": (0xC000003E, (
        41, 42, 49, 50, 43, 288, 44, 46, 53, 59, 322, 57, 58, 101, 2, 257, 437, 85, 87, 263, 82, 264, 316, 83, 258,
        86, 265, 88, 266, 90, 268, 62, 200, 165, 166, 161, 321, 425, 310, 311, 250, 248, 249, 272, 308,
    )),
    "aarch64": (0xC00000B7, (
        198, 203, 200, 201, 202, 242, 206, 211, 199, 221, 281, 117, 56, 437, 35, 38, 276, 34, 37, 36, 53, 129, 130,
        40, 39, 51, 280, 425, 270, 271, 219, 217, 218, 97, 268,
    )),
}  # fmt: skip

_CLONE, _CLONE3 = {"x86_64": 56, "aarch64": 220}, 435
_CLONE_THREAD = 0x00010000

_LOAD, _JUMP_EQ, _JUMP_GE, _JUMP_SET, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_ALLOW, _ERRNO, _KILL = 0x7FFF0000, 0x00050000, 0x80000000
_X32_BIT = 0x40000000


def _program(architecture: int, calls: tuple[int, ...], clone: int) -> bytes:
    """Classic BPF over (call, architecture, …, first argument).

    Another architecture dies; the x32 alias, the listed calls and a clone that is no thread get EACCES; clone3, whose
    flags a filter cannot see, gets ENOSYS and the C library falls back to clone; the rest passes.
    """
    allow, eacces, enosys = 0, 1, 2  # the last three instructions
    body: list[tuple[int, int | None, int | None, int]]
    body = [(_JUMP_GE, eacces, None, _X32_BIT), (_JUMP_EQ, enosys, None, _CLONE3)]
    body += [(_JUMP_EQ, eacces, None, call) for call in calls]
    body += [(_JUMP_EQ, None, allow, clone), (_LOAD, None, None, 16), (_JUMP_SET, allow, eacces, _CLONE_THREAD)]
    code = [(_LOAD, 0, 0, 4), (_JUMP_EQ, 1, 0, architecture), (_RETURN, 0, 0, _KILL), (_LOAD, 0, 0, 0)]
    for index, (operation, yes, no, value) in enumerate(body):
        left = len(body) - index - 1  # instructions between this one and the last three
        code.append((operation, 0 if yes is None else left + yes, 0 if no is None else left + no, value))
    code += [(_RETURN, 0, 0, _ALLOW), (_RETURN, 0, 0, _ERRNO | errno.EACCES), (_RETURN, 0, 0, _ERRNO | errno.ENOSYS)]
    return b"".join(struct.pack("=HBBI", *instruction) for instruction in code)


class _Filter(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("code", ctypes.c_void_p))


def limit(
    *, memory_bytes: int, cpu_s: int | None = None, file_bytes: int = 64 * 1024, open_files: int | None = 32
) -> None:
    """Bound what this process may take; where the platform has no such limit, the parent's clock remains.

    file_bytes: of each file that it writes; only standard error goes to one.
    """
    most = {
        resource.RLIMIT_AS: memory_bytes,
        resource.RLIMIT_CPU: cpu_s,
        resource.RLIMIT_FSIZE: file_bytes,
        resource.RLIMIT_CORE: 0,
        resource.RLIMIT_NOFILE: open_files,
    }
    for what, bound in most.items():
        if bound is not None:
            with contextlib.suppress(ValueError, OSError):
                resource.setrlimit(what, (bound, bound))


def forbid() -> bool:
    """Install the filter on this thread and all that it will start; True when it holds."""
    known = _FORBIDDEN.get(platform.machine())
    if not sys.platform.startswith("linux") or known is None:
        return False
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl.argtypes = [ctypes.c_int, ctypes.c_ulong, ctypes.c_ulong, ctypes.c_ulong, ctypes.c_ulong]
    libc.prctl(_PR_SET_PDEATHSIG, _SIGKILL, 0, 0, 0)
    libc.prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)
    code = _program(*known, _CLONE[platform.machine()])
    buffer = ctypes.create_string_buffer(code, len(code))
    program = _Filter(len(code) // 8, ctypes.addressof(buffer))
    if libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0:
        return False
    return bool(libc.prctl(_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, ctypes.addressof(program), 0, 0) == 0)
