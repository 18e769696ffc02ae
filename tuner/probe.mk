# probe, show, verify, explain
