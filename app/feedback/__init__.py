"""Query log, feedback on results, and the judged sets made from both."""
