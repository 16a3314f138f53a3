module rescheduler.dev/tests/cluster/real/apps

go 1.26.0
