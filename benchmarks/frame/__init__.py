"""What all questions share: pairs in turns, figures and verdicts, the machine, its limits, and the page."""
