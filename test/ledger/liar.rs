// SPDX-License-Identifier: Apache-2.0
//! A node that lies: it answers what anvil does, except what a test makes it say.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
};

use chain::{Connection, Http};
use jsonrpc_core::Value;
use serde_json::json;
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::{TcpListener, TcpStream},
};
use web3::{Transport, error::Error};

/// The result, or the code of an error.
type Said = Result<Value, i64>;
type Lie = Arc<Mutex<dyn FnMut(&str, &Value, Value) -> Said + Send>>;

/// Listens until the test ends.
pub struct Liar {
    pub address: SocketAddr,
}

impl Liar {
    /// Puts itself in front of a chain. `lie` gets method, parameters and the true result, and returns what to say.
    pub async fn start(
        chain: Connection,
        lie: impl FnMut(&str, &Value, Value) -> Said + Send + 'static,
    ) -> Self {
        let lie: Lie = Arc::new(Mutex::new(lie));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(talk(client, chain.clone(), Arc::clone(&lie)));
            }
        });
        Self { address }
    }

    /// URL of its JSON-RPC.
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    pub fn chain(&self) -> Connection {
        Connection::Http(Http::new(&self.endpoint()).unwrap())
    }
}

/// One request a connection.
async fn talk(client: TcpStream, chain: Connection, lie: Lie) {
    let mut client = BufReader::new(client);
    let (mut line, mut length) = (String::new(), 0);
    while client.read_line(&mut line).await.unwrap_or(0) > 2 {
        if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().unwrap();
        }
        line.clear();
    }
    let mut body = vec![0; length];
    if client.read_exact(&mut body).await.is_err() {
        return;
    }
    let answer = match serde_json::from_slice(&body) {
        Ok(Value::Array(calls)) => {
            let mut answers = Vec::new();
            for call in calls {
                answers.push(answer(&chain, &lie, &call).await);
            }
            Value::Array(answers)
        }
        Ok(call) => answer(&chain, &lie, &call).await,
        Err(_) => return,
    };
    let body = answer.to_string();
    let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", body.len());
    let _ = client.write_all(format!("{head}{body}").as_bytes()).await;
}

async fn answer(chain: &Connection, lie: &Lie, call: &Value) -> Value {
    let (method, params) = (call["method"].as_str().unwrap_or_default(), call["params"].clone());
    let asked = chain.execute(method, params.as_array().cloned().unwrap_or_default()).await;
    let result = match asked {
        Ok(result) => match lie.lock().unwrap()(method, &params, result) {
            Ok(result) => json!({ "result": result }),
            Err(code) => json!({ "error": { "code": code, "message": "no" } }),
        },
        Err(Error::Rpc(error)) => json!({ "error": error }),
        Err(error) => json!({ "error": { "code": -32603, "message": error.to_string() } }),
    };
    let mut answer = json!({ "jsonrpc": "2.0", "id": call["id"] });
    answer.as_object_mut().unwrap().extend(result.as_object().unwrap().clone());
    answer
}
