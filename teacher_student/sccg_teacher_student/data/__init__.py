"""Reads pairs of MR and CT slices (PNG, DICOM, NIfTI), splits them by case, and makes the phantom. No torch here."""
