"""Previews of sensors (`dagster sensor preview`, *Preview tick result* in the UI), which may change nothing."""

import dagster as dg

NOT_LOOKED = "a preview looks at no file and changes nothing; the sensor's tick does"


def is_preview(context: dg.SensorEvaluationContext) -> bool:
    """Whether this evaluation is of no tick of the daemon. One that a test calls by hand is as a tick.

    Dagster says so nowhere. The log of a tick is named by the tick's number, that of a preview by the time
    (`SensorEvaluationContext.__init__`, `SensorLaunchContext.log_key` in Dagster 1.13).
    """
    return context.log_key is not None and not str(context.log_key[-1]).isdigit()
