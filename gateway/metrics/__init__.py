"""What a process tells Prometheus of itself. Imported late, for `processes.prepare_multiprocess` has to come first."""
