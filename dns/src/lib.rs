//! The embedded DNS: answers from the plan, a server, and a forwarder for other names.
