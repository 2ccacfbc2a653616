"""What the module is about."""

import os

LIMIT = 3


# above the function
@staticmethod
def first(x):
    def inner():
        return x

    return inner


class Second:
    """Its docstring."""

    def method(self):
        return os.sep


async def third():
    pass
