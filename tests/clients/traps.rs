//! What surprises with tokio-postgres, on the table `crowd`. Prints what happened, for `test_tokio_postgres.py`.

use std::error::Error;

use pgvector::Vector;
use tokio_postgres::{Client, NoTls};

async fn vectors(client: &Client, vector: &Vector) -> Result<(), Box<dyn Error>> {
    let cast = "select content from query_crowd($1::vector, 0.9, 1)";
    println!("cast: {}", client.query_one(cast, &[vector]).await?.get::<_, &str>(0));
    let named = "select content from query_crowd(embedding => $1, match_threshold => 0.9, match_count => 1)";
    println!("named: {}", client.query_one(named, &[vector]).await?.get::<_, &str>(0));
    let operator = "select content from crowd order by embedding <#> $1 limit 1";
    println!("operator: {}", client.query_one(operator, &[vector]).await?.get::<_, &str>(0));
    let untyped = client.query("select content from query_crowd($1, 0.9, 1)", &[vector]).await;
    println!("untyped: {}", untyped.err().map_or("not refused".into(), |error| error.to_string()));
    Ok(())
}

async fn prepared(client: &Client) -> Result<(), Box<dyn Error>> {
    for text in [
        "select content from search_crowd($1, 3)",
        "select content from query_crowd($1, null, 3)",
        "select content from query_crowd($1, null) limit 3",
        "select content from crowd order by embedding <#> (select embed_query($1)) limit 3",
    ] {
        let statement = client.prepare(text).await?;
        let mut right = 0;
        for number in 0..12 {
            let rows =
                client.query(&statement, &[&format!("when must I pay number {number}?")]).await?;
            if rows.len() == 3 && rows[0].get::<_, &str>(0).starts_with("Invoices") {
                right += 1;
            }
        }
        println!("{right} right");
    }
    Ok(())
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let (client, connection) =
        tokio_postgres::connect(&std::env::var("DATABASE_URL")?, NoTls).await?;
    let connection = tokio::spawn(connection);
    let embedded = "select embed($1)";
    let vector: Vector =
        client.query_one(embedded, &[&"Invoices are due within thirty days."]).await?.get(0);
    match std::env::args().nth(1).as_deref() {
        Some("vectors") => vectors(&client, &vector).await?,
        Some("prepared") => prepared(&client).await?,
        Some("array") => {
            let array = client.query(embedded, &[&["cat", "dog"].as_slice()]).await;
            println!("untyped: {}", array.err().map_or("not refused".into(), |e| e.to_string()));
        }
        _ => return Err("usage: traps vectors|prepared|array".into()),
    }
    drop(client);
    connection.await??;
    Ok(())
}
