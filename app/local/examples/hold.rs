//! Starts Kafka and Postgres over a directory and holds them until Enter or the end of input:
//! `cargo run -p foldstream-local --example hold -- .dev`.

use foldstream_local::{Local, LocalError, Options};

fn main() -> Result<(), LocalError> {
    let dir = std::env::args().nth(1).unwrap_or_else(|| ".dev".to_owned());
    let local = Local::start(Options::in_dir(dir), &mut |step| println!("{step}"))?;
    println!("kafka    {} (pid {:?})", local.kafka(), local.kafka_pid());
    println!("postgres {} (pid {:?})", local.postgres_url("postgres"), local.postgres_pid());
    let mut line = String::new();
    let _ = std::io::stdin().read_line(&mut line);
    Ok(())
}
