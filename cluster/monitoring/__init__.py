"""Dashboards, alert rules and their documentation, made from `finsent.metric_list`."""
