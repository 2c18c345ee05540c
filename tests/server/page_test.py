#!/usr/bin/env python3
"""The web page in a browser: against a mock that misbehaves, and against augur-server itself.

  page_test.py SOURCE                         the mock
  page_test.py SOURCE --server PROGRAM ARG..  PROGRAM ARG.. --set server.port=0
  --screenshots FOLDER                        before --server: what it looks like, as PNG files
"""

import argparse
import pathlib
import sys
import unittest

import browser as browsers
import page_case as case
import page_chat_cases
import page_live_cases
import page_looks_cases
import page_served_cases


def tests_of(module):
    """Of the test classes that the module itself has, not of those that it imports."""
    for value in vars(module).values():
        is_own = isinstance(value, type) and value.__module__ == module.__name__
        if is_own and issubclass(value, unittest.TestCase):
            yield from unittest.defaultTestLoader.loadTestsFromTestCase(value)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("source", type=pathlib.Path)
    parser.add_argument("--screenshots", type=pathlib.Path)
    parser.add_argument("--only", help="tests whose names contain this")
    parser.add_argument("--server", nargs=argparse.REMAINDER)
    case.options = parser.parse_args()
    modules = [page_served_cases] if case.options.server else [
        page_chat_cases, page_live_cases, page_looks_cases]
    only = case.options.only
    suite = unittest.TestSuite(
        test for module in modules for test in tests_of(module) if only is None or only in test.id())
    case.browser = browsers.Browser()
    try:
        result = unittest.TextTestRunner(verbosity=2).run(suite)
    finally:
        case.browser.close()
    sys.exit(0 if result.wasSuccessful() and result.testsRun > 0 else 1)


if __name__ == "__main__":
    main()
