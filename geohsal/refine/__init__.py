"""Class statistics, error-mask calibration and PLAR: pseudo-labels in, refined labels out."""
