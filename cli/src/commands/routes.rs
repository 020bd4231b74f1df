//! `routes`.

use clap::Args;
use selvedge_node::api::types::Route;

use super::DONE;
use crate::{
    args::Global,
    client::Ask,
    failure::Outcome,
    output::{
        Look,
        table::{Cell, Table},
    },
};

/// Ways over the overlay from this node to all others.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  selvedge routes
  selvedge routes -o wide    with addresses")]
pub(crate) struct RoutesArgs {}

pub(crate) async fn run(global: &Global, _args: RoutesArgs) -> Outcome {
    let routes: Vec<Route> = global.client()?.ask(Ask::get("/v1/routes")).await?;
    global.printer().show(&routes, |look| table(&routes, look))?;
    DONE
}

fn table(routes: &[Route], look: Look) -> String {
    const NARROW: [&str; 3] = ["NODE", "NEXT HOP", "PATH"];
    const WIDE: [&str; 4] = ["NODE", "NEXT HOP", "PATH", "ADDRESSES"];
    let mut rows = Table::new(look, if look.wide { &WIDE } else { &NARROW });
    for route in routes {
        rows.row([
            route.node.as_str().into(),
            Cell::maybe(route.next_hop.as_ref()),
            route.path.join(" > ").into(),
            route.addresses.join(",").into(),
        ]);
    }
    rows.or("no route: the overlay of this node is off, or there is no other node")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn routes_read_at_a_glance() {
        let words = |text: &str| text.split(' ').map(str::to_owned).collect();
        let there = Route {
            node: "gcp-1".into(),
            next_hop: Some("azr-1".into()),
            path: words("aws-1 azr-1 gcp-1"),
            addresses: words("100.64.3.1"),
        };
        let lost = Route { node: "gcp-2".into(), ..Route::default() };
        let expected = "\
NODE   NEXT HOP  PATH
gcp-1  azr-1     aws-1 > azr-1 > gcp-1
gcp-2  -         -
";
        assert_eq!(table(&[there, lost], Look::PLAIN), expected);
    }
}
