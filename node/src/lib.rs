//! The Selvedge daemon: composition root, identity and enrollment, reconcile, API.
