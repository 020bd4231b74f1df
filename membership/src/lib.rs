//! Failure detection, signed facts, their merge and dissemination.
