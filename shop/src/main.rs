//! The shop: wiring only. Roles, command line and contracts derive from this list.

mod online_retail;

use foldstream::{Addresses, App, Sample, Service};
use online_retail::OnlineRetail;
use shop_invoicing::{CreditNote, Invoice};
use std::process::ExitCode;

fn main() -> ExitCode {
    App::new("shop")
        .service(Service::new("invoicing").aggregate::<Invoice>().aggregate::<CreditNote>())
        .read_models(shop_projections::all())
        .importer(OnlineRetail)
        .sample(Sample {
            importer: "online-retail",
            file_name: "online-retail-2010-12.csv.gz",
            bytes: include_bytes!("../sample/online-retail/2010-12.csv.gz"),
        })
        .hints(to_paste)
        .run()
}

/// Three lines for the first minute.
fn to_paste(at: &Addresses) -> Vec<String> {
    let api = at.api.as_deref().unwrap_or_default();
    let analyst = at.analyst.as_deref().unwrap_or_default();
    let line = r#"{"sku":"22423","description":"CAKESTAND","quantity":2,"unit_price":"12.75"}"#;
    let head = r#""issued_at":"2011-01-04T10:00:00Z","country":"France","currency":"GBP""#;
    let invoice = format!(r#"{{{head},"lines":[{line}]}}"#);
    vec![
        format!("curl -s '{api}/v1/sales_by_day?country=eq.France&order=day.desc&limit=3'"),
        format!("curl -si {api}/v1/invoices -H 'Content-Type: application/json' -d '{invoice}'"),
        format!(
            "psql '{analyst}' -c 'select country, sum(net) from analytics.sales_by_day \
             group by 1 order by 2 desc limit 5'"
        ),
    ]
}
