//! plan(policy, view, now) -> Plan.
