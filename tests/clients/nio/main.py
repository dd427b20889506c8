"""Runs the tests and counts them in one line. Arguments are names of tests, as of `python -m unittest`."""

import pathlib
import sys
import unittest

here = pathlib.Path(__file__).parent
loader = unittest.TestLoader()
named = sys.argv[1:]
suite = loader.loadTestsFromNames(named) if named else loader.discover(str(here))
result = unittest.TextTestRunner(verbosity=2).run(suite)
broken = len(result.failures) + len(result.errors)
skipped = len(result.skipped)
# A class whose set-up fails is one error and runs no test.
passed = max(result.testsRun - broken - skipped, 0)
print(f"{passed} passed, {broken} failed, {skipped} skipped", flush=True)
sys.exit(broken > 0)
