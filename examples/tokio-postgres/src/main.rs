//! tokio-postgres: the program writes and searches texts, the database embeds them.
//!
//! ```sh
//! DATABASE_URL=postgresql://... cargo run
//! ```

use std::error::Error;

use pgvector::Vector;
use tokio_postgres::{Client, NoTls};

const PLACES: [(&str, &str); 3] = [
    ("library", "A quiet house full of books to borrow."),
    ("pool", "A place to swim, with a slide for children."),
    ("bakery", "Bread and cake, fresh from six in the morning."),
];

async fn prepare(client: &Client) -> Result<(), tokio_postgres::Error> {
    // `batch_execute` sends several statements in one message. CREATE EXTENSION once for each database, as a superuser.
    client
        .batch_execute(
            "create extension if not exists \"gte-small\" cascade;
             create table if not exists places (id int generated always as identity primary key, name text unique, about text);
             select enable_semantic_search('places', 'name, about')",
        )
        .await
}

async fn write(client: &Client) -> Result<(), tokio_postgres::Error> {
    let insert = client
        .prepare("insert into places (name, about) values ($1, $2) on conflict do nothing")
        .await?;
    for (name, about) in PLACES {
        client.execute(&insert, &[&name, &about]).await?;
    }
    Ok(())
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let (client, connection) =
        tokio_postgres::connect(&std::env::var("DATABASE_URL")?, NoTls).await?;
    let connection = tokio::spawn(connection);
    prepare(&client).await?;
    write(&client).await?;

    // The server says which types the parameters have: text and int4 here, so a count is an i32.
    let found = client
        .query(
            "select name, similarity from search_places($1, $2)",
            &[&"something to read", &2_i32],
        )
        .await?;
    for row in found {
        println!("{:.2}  {}", row.get::<_, f64>(1), row.get::<_, &str>(0));
    }

    // Without the cast $1 would be a text, and a `Vector` could not be passed.
    let library: Vector = client
        .query_one("select embedding from places where name = $1", &[&"library"])
        .await?
        .get(0);
    let near = client
        .query_one(
            "select name from query_places($1::vector, null, 2) where name <> 'library'",
            &[&library],
        )
        .await?;
    println!("next to the library: {}", near.get::<_, &str>(0));

    // Without the cast it would be one text, and an array could not be passed.
    let texts = ["cat", "dog"];
    let vectors: Vec<Vector> =
        client.query_one("select embed($1::text[])", &[&texts.as_slice()]).await?.get(0);
    println!("{} vectors of two texts", vectors.len());

    drop(client);
    connection.await??;
    Ok(())
}
