"""What contributors run; not part of the package."""
