//! Real instances on loopback, and the core in a seeded simulation.
