// SPDX-License-Identifier: Apache-2.0
//! A DNS server for one zone that stays silent about some names, like a server that is down or blocked.

use std::{
    net::{SocketAddr, UdpSocket},
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

use authenticator::zone::Zone;
use mail_auth::hickory_resolver::proto::{
    op::{Message, Query, ResponseCode},
    rr::{
        Name, RData, Record, RecordType,
        rdata::{A, AAAA, MX, TXT},
    },
};

/// Answers on a port of 127.0.0.1 until the process ends.
pub struct NameServer {
    pub address: SocketAddr,
    zone: Arc<Mutex<Zone>>,
    silent: Arc<Mutex<Vec<String>>>,
    unanswered: Arc<AtomicUsize>,
}

impl NameServer {
    /// Serves the text of a zone file; does not answer for names that end in one of `silent`.
    pub fn start(zone: &str, silent: &[&str]) -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").expect("bind");
        let server = Self {
            address: socket.local_addr().expect("address"),
            zone: Arc::default(),
            silent: Arc::new(Mutex::new(silent.iter().map(|&name| name.to_owned()).collect())),
            unanswered: Arc::default(),
        };
        server.serve(zone);
        let (zone, silent) = (Arc::clone(&server.zone), Arc::clone(&server.silent));
        let unanswered = Arc::clone(&server.unanswered);
        std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok((length, client)) = socket.recv_from(&mut buffer) {
                let Ok(question) = Message::from_vec(&buffer[..length]) else { continue };
                let Some(query) = question.queries.first() else { continue };
                let name = query.name().to_string().to_ascii_lowercase();
                if silent.lock().expect("names").iter().any(|end| name.trim_end_matches('.').ends_with(end)) {
                    unanswered.fetch_add(1, Ordering::Relaxed);
                    continue;
                }
                let answer =
                    answer(&zone.lock().expect("zone"), &question, query, &name).to_vec().expect("encodes");
                socket.send_to(&answer, client).expect("send");
            }
        });
        server
    }

    /// Replaces the zone.
    pub fn serve(&self, zone: &str) {
        *self.zone.lock().expect("zone") = Zone::parse(zone, "test.zone").expect("zone");
    }

    /// From now on, answers for every name.
    pub fn answer_all(&self) {
        self.silent.lock().expect("names").clear();
    }

    /// Number of queries that were left unanswered.
    pub fn unanswered(&self) -> usize {
        self.unanswered.load(Ordering::Relaxed)
    }
}

fn answer(zone: &Zone, question: &Message, query: &Query, name: &str) -> Message {
    let mut answer = Message::response(question.metadata.id, question.metadata.op_code);
    answer.add_query(query.clone());
    let Some(records) = zone.get(name.trim_end_matches('.')) else {
        answer.metadata.response_code = ResponseCode::NXDomain;
        return answer;
    };
    let data: Vec<RData> = match query.query_type() {
        RecordType::TXT => {
            let strings = |text: &Vec<u8>| RData::TXT(TXT::from_bytes(text.chunks(255).collect()));
            records.txt.iter().map(strings).collect()
        }
        RecordType::A => records.a.iter().map(|address| RData::A(A(*address))).collect(),
        RecordType::AAAA => records.aaaa.iter().map(|address| RData::AAAA(AAAA(*address))).collect(),
        RecordType::MX => {
            let exchange = |name: &String| Name::from_ascii(name).expect("name");
            records
                .mx
                .iter()
                .map(|(preference, name)| RData::MX(MX::new(*preference, exchange(name))))
                .collect()
        }
        _ => Vec::new(),
    };
    for data in data {
        answer.add_answer(Record::from_rdata(query.name().clone(), 60, data));
    }
    answer
}
