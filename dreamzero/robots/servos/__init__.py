"""What arms of servos share, whatever their protocol: bus, driver, emulated servos, set-up."""
