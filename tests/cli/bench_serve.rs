//! `bindery bench serve`, where the server is not there or answers nothing.

use super::run;
use std::io::{Read, Write};
use std::net::TcpListener;

#[test]
fn without_a_server_one_line_says_to_start_one() {
    let output = run(&["bench", "serve", "--base-url", "http://127.0.0.1:1"]);
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!((output.status.code(), said.lines().count()), (Some(1), 1), "{said}");
    assert!(said.contains("`bindery serve`") && said.contains("--base-url"), "{said}");
}

#[test]
fn where_every_request_fails_the_reason_is_told_once_and_nothing_else() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let url = format!("http://{}", listener.local_addr().expect("bound"));
    // It answers the request that does not count, and refuses all others.
    std::thread::spawn(move || {
        for (number, stream) in listener.incoming().enumerate() {
            let mut stream = stream.expect("a client");
            // The body may come later than the head; what is left unread is lost with the connection.
            let mut request = Vec::new();
            while !request.ends_with(b"}") {
                let mut piece = [0; 4096];
                let length = stream.read(&mut piece).expect("it sends");
                request.extend_from_slice(&piece[..length]);
            }
            let (status, body) = match number {
                0 => ("200 OK", "data: {\"choices\": [{\"text\": \"a\"}]}\n\ndata: [DONE]\n\n"),
                _ => ("503 Service Unavailable", "{\"error\": {\"message\": \"closed for today\"}}"),
            };
            let head = format!("HTTP/1.1 {status}\r\nConnection: close\r\nContent-Length: {}\r\n\r\n", body.len());
            stream.write_all((head + body).as_bytes()).expect("it reads");
        }
    });
    let output = run(&["bench", "serve", "--base-url", &url, "--model", "m", "--num-prompts", "3"]);
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!((output.status.code(), output.stdout.len()), (Some(1), 0), "{said}");
    assert_eq!(said.matches("closed for today").count(), 1, "{said}");
}
