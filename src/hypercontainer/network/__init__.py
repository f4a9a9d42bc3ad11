"""Networks of pods: a bridge for root, passt for everybody else (see base.py for the promises)."""
