"""What the check_*.py programs share: how a check fails, and how checks are run and told."""

import pathlib
import traceback


class CheckFailed(Exception):
    pass


def require(condition, message):
    if not condition:
        raise CheckFailed(message)


def run(engine, case_class, folders, names):
    """Runs the methods check_NAME of case_class(folder), one line each; returns the exit code. names is a list, or a function
    that gives one for a folder.

    A check that returns is passed, with what it returns as the comment; CheckFailed and any other exception fail it.
    """
    passed = failed = 0
    for folder in folders:
        case = None
        for name in names(folder) if callable(names) else names:
            label = f"{pathlib.Path(folder).name} {engine} {name}"
            try:
                case = case or case_class(folder)
                told = getattr(case, "check_" + name)()
            except CheckFailed as e:
                failed += 1
                print(f"FAIL {label}: {e}", flush=True)
            except Exception:
                failed += 1
                print(f"FAIL {label}:\n{traceback.format_exc()}", flush=True)
            else:
                passed += 1
                print(f"ok   {label}: {told}", flush=True)
    print(f"{passed} passed, {failed} failed")
    return 1 if failed else 0
