"""Test runner for tempest: runs the named tests in this process and prints a line for each, totals and skips."""

import sys
import unittest


class Result(unittest.TextTestResult):
    """Test result that counts successes as well."""

    def __init__(self, *args: object, **kwargs: object) -> None:
        super().__init__(*args, **kwargs)  # type: ignore[arg-type]
        self.passed = 0

    def addSuccess(self, test: unittest.TestCase) -> None:
        super().addSuccess(test)
        self.passed += 1

    def getDescription(self, test: unittest.TestCase) -> str:
        return str(test.id())


def main(names: list[str]) -> int:
    suite = unittest.defaultTestLoader.loadTestsFromNames(names)
    runner = unittest.TextTestRunner(verbosity=2, resultclass=Result, warnings="ignore")
    result = runner.run(suite)
    assert isinstance(result, Result)
    print(
        f"{result.passed} passed, {len(result.failures)} failed, {len(result.errors)} errors, "
        f"{len(result.skipped)} skipped"
    )
    for test, reason in result.skipped:
        print(f"skipped {test.id()}: {reason}")
    return 0 if result.wasSuccessful() else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
