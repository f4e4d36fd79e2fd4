"""Stock Dagster with empty steps: as many steps, assets and checks as a month has, all without work.

This is the cost of a run without any user code.
"""

from collections.abc import Iterator

import dagster as dg

MONTHS = dg.MonthlyPartitionsDefinition("2021-01", fmt="%Y-%m")
_CHECKS = [dg.AssetCheckSpec(f"check_{number}", asset="clean") for number in range(5)]


@dg.asset(partitions_def=MONTHS)
def raw() -> dg.MaterializeResult[None]:
    """Do nothing."""
    return dg.MaterializeResult()


@dg.multi_asset(specs=[dg.AssetSpec(name, deps=["raw"]) for name in ("clean", "quarantine")], partitions_def=MONTHS)
def halves() -> Iterator[dg.MaterializeResult[None]]:
    """Do nothing, for two assets."""
    yield dg.MaterializeResult("clean")
    yield dg.MaterializeResult("quarantine")


@dg.multi_asset_check(specs=_CHECKS)
def checks() -> Iterator[dg.AssetCheckResult]:
    """Pass all checks."""
    for spec in _CHECKS:
        yield dg.AssetCheckResult(passed=True, asset_key=spec.asset_key, check_name=spec.name)


@dg.asset(deps=["clean"], partitions_def=MONTHS)
def warehouse() -> dg.MaterializeResult[None]:
    """Do nothing."""
    return dg.MaterializeResult()


@dg.asset_check(asset="warehouse")
def equals() -> dg.AssetCheckResult:
    """Pass."""
    return dg.AssetCheckResult(passed=True)


defs = dg.Definitions(assets=[raw, halves, warehouse], asset_checks=[checks, equals], executor=dg.in_process_executor)
