"""Jobs that are run by the clock.

`reading` makes schedules of files, `decide` says what is due and what becomes of it, `serve` acts
on that, `drive` is one run from its beginning to its end, `install` is for cron and systemd.
"""
