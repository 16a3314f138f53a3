"""Decisions: values in, values out.

Nothing here does I/O or reads a clock: `now` is an argument. It imports the standard library and `rescheduler.api`, and
import-linter holds it to that. The packages import downward only: `drain` and `rebalance`, then `eligibility`, `pools`,
`placement`, `failure`, `eviction` and `replacement`, and `model`.
"""
