"""Methods and losses side by side: `suites` what is run, `runner` one run, `report` the table."""
