"""Check digits of Japanese numbers, each by its published rule. Digits in, True or the digit out."""

from __future__ import annotations

from collections.abc import Sequence

# Q_n of the My Number rule for the digits from the left (Ordinance No. 85 of 2014 of the Ministry of Internal Affairs).
_MY_NUMBER = (6, 5, 4, 3, 2, 7, 6, 5, 4, 3, 2)
_DRIVER = (5, 4, 3, 2, 7, 6, 5, 4, 3, 2)


def my_number_digit(body: Sequence[int]) -> int:
    """The 12th digit of an individual number for its first 11."""
    left = sum(digit * weight for digit, weight in zip(body, _MY_NUMBER, strict=True)) % 11
    return 0 if left <= 1 else 11 - left


def corporate_number_digit(body: Sequence[int]) -> int:
    """The first digit of a corporate number for its last 12 (National Tax Agency: modulus 9, weights 1 and 2 from the right)."""
    return 9 - sum(digit * (1 + place % 2) for place, digit in enumerate(reversed(body))) % 9


def driver_license_digit(body: Sequence[int]) -> int:
    """The 11th digit of a driver licence number for its first 10 (modulus 11; a rest of 0 gives 1, of 1 gives 0)."""
    left = sum(digit * weight for digit, weight in zip(body, _DRIVER, strict=True)) % 11
    return {0: 1, 1: 0}.get(left, 11 - left)


def luhn_digit(body: Sequence[int]) -> int:
    """The last digit by Luhn: payment cards, and insurer numbers of health insurance."""
    doubled = (digit * 2 if place % 2 == 0 else digit for place, digit in enumerate(reversed(body)))
    return -sum(each - 9 if each > 9 else each for each in doubled) % 10


def is_my_number(digits: str) -> bool:
    numbers = _digits(digits)
    return len(numbers) == 12 and len(set(numbers)) > 1 and numbers[11] == my_number_digit(numbers[:11])


def is_corporate_number(digits: str) -> bool:
    numbers = _digits(digits)
    return len(numbers) == 13 and numbers[0] > 0 and numbers[0] == corporate_number_digit(numbers[1:])


def is_driver_license(digits: str) -> bool:
    """Twelve digits: commission of a prefecture (10 to 97), year, serial, check digit, times reissued."""
    numbers = _digits(digits)
    return (
        len(numbers) == 12
        and 10 <= numbers[0] * 10 + numbers[1] <= 97
        and numbers[10] == driver_license_digit(numbers[:10])
    )


def is_insurer_number(digits: str) -> bool:
    """Eight digits (six for National Health Insurance): law, prefecture 01 to 47, insurer, check digit."""
    numbers = _digits(digits)
    if len(numbers) not in {6, 8} or numbers[-1] != luhn_digit(numbers[:-1]):
        return False
    prefecture = numbers[-6] * 10 + numbers[-5]
    return 1 <= prefecture <= 47


def is_card(digits: str) -> bool:
    """A payment card: Luhn, and a length and prefix that a brand has."""
    numbers = _digits(digits)
    if not 14 <= len(numbers) <= 16 or numbers[-1] != luhn_digit(numbers[:-1]):
        return False
    two, three, four = int(digits[:2]), int(digits[:3]), int(digits[:4])
    return {
        16: digits[0] == "4"
        or 51 <= two <= 55
        or 2221 <= four <= 2720
        or 3528 <= four <= 3589
        or four == 6011
        or two in {62, 65},
        15: two in {34, 37},
        14: 300 <= three <= 305 or two in {36, 38},
    }[len(numbers)]


def _digits(text: str) -> list[int]:
    return [int(c) for c in text] if text.isascii() and text.isdigit() else []
