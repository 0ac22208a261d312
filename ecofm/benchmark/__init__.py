"""Check scores against statistics from elsewhere, beside what a sceptic would try first.

`benchmark.benchmark` is the stage; `proxies` reads tables and regions, `baselines` measures the
pixels, `metrics` and `contest` compute, `report` writes.
"""
