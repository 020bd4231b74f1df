//! The intent of small drills: a domain named `shop`.

use std::fmt::Write as _;

/// The domain with its contracts, each with the ports of its server (`tcp/80, udp/53`), and its services,
/// each with its roles (`server:web, client:db`).
#[must_use]
pub fn shop(contracts: &[(&str, &str)], services: &[(&str, &str)]) -> String {
    let mut text = "apiVersion: selvedge/v1\nkind: Domain\nmetadata: {name: shop}\nspec: {}\n".to_owned();
    let mut object = |kind: &str, name: &str, spec: String| {
        // Writing to a String cannot fail.
        let _ = write!(
            text,
            "---\napiVersion: selvedge/v1\nkind: {kind}\nmetadata: {{name: {name}, domain: shop}}\nspec: {{{spec}}}\n"
        );
    };
    for (name, ports) in contracts {
        object("Contract", name, format!("template: client-server, roles: {{server: {{ports: [{ports}]}}}}"));
    }
    for (name, roles) in services {
        object("Service", name, format!("roles: [{roles}]"));
    }
    text
}
