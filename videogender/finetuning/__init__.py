"""Fine-tuning: heads of your own, trained on labelled faces over a finished detector."""
