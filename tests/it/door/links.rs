//! Links and short codes over real sockets: the last use raced over two relays, and customers who come back with what let them in.

use outgate::connector::Connector;
use outgate::relay::Relay;
use serde_json::{Value, json};

use crate::relay::customer::Customer;
use crate::trust::company::{Company, all_pushed};

const GRANTS: [(&str, &[&str]); 1] = [("lan1", &["hello", "support"])];

const HELLO: &str = "<message to='support@localhost' type='chat' id='h1'><body>hello</body></message>";

/// Two relays and their connector, whose queues a bot serves.
struct Site {
    company: Company,
    relays: [Relay; 2],
    _connector: Connector,
}

#[tokio::test]
async fn two_relays_that_race_for_the_last_uses_of_a_link_get_just_these() {
    let site = Site::start().await;
    let mut claims = site.company.claims("support");
    claims.outgate.max_sessions = Some(3);
    let link = site.company.key.mint(&claims).unwrap();
    let mut arriving = tokio::task::JoinSet::new();
    for n in 0..12 {
        let mut customer = site.customer(n % 2).await;
        let link = link.clone();
        // Whoever passes CHECK before the last use is counted is refused at OPEN, after bind.
        arriving.spawn(async move {
            customer.open_stream().await;
            customer.plain(&link).await;
            if customer.until_any(&["<success", "</failure>"]).await.contains("</failure>") {
                return (customer, false);
            }
            customer.open_stream().await;
            customer.say("<iq type='set' id='b'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'/></iq>").await;
            customer.until("</iq>").await;
            customer.say("<presence/>").await;
            let heard = customer.until_any(&["This is lan1.", "used up"]).await;
            (customer, heard.contains("This is lan1."))
        });
    }
    let arrived = arriving.join_all().await;
    assert_eq!(arrived.iter().filter(|(_, is_in)| *is_in).count(), 3);
    let status = site.desk().await;
    assert_eq!(
        (status["counters"]["sessions_opened"].as_u64(), status["counters"]["refused_for"]["link-used-up"].as_u64()),
        (Some(3), Some(9))
    );
    let listed = site.listed(&claims.jti).await;
    assert_eq!((listed["uses"].as_u64(), listed["state"].as_str()), (Some(3), Some("used-up")), "{listed}");
    site.stop().await;
}

#[tokio::test]
async fn a_code_lets_in_as_password_or_as_name_at_any_relay_as_often_as_it_says() {
    let site = Site::start().await;
    let made = site.make(json!({"queue": "support", "seconds": 3600, "max_sessions": 3})).await;
    let code = made["code"].as_str().unwrap().to_owned();
    assert!(code.len() == 26 && code.starts_with('1'), "{made}");
    let grouped = made["grouped"].as_str().unwrap().to_uppercase();
    let mut inside = Vec::new();
    for (relay, user, password) in [(0, "me", code.as_str()), (1, "me", grouped.as_str()), (1, code.as_str(), "anything")] {
        let mut customer = site.customer(relay).await;
        customer.open_stream().await;
        customer.plain_as(user, password).await;
        customer.until("<success").await;
        customer.bind().await;
        customer.say("<presence/>").await;
        customer.until("This is lan1.").await;
        inside.push(customer);
    }
    assert!(site.refused(0, "me", &code).await.contains("This link has been used up."));
    assert!(site.refused(0, "me", "100000-00000-00000-00000-00000").await.contains("This code is not valid."));
    // A label that nobody has is no question to anybody.
    assert!(site.refused(0, "me", "z0000000000000000000000000").await.contains("This code is not valid."));
    let reasons = site.relays[0].status().await.counts.reasons;
    assert_eq!((reasons["check-bad-link"], reasons["code-unknown-label"]), (2, 1));
    assert_eq!(site.desk().await["counters"]["refused_for"]["code-wrong"], 1);
    let listed = site.listed(made["jti"].as_str().unwrap()).await;
    assert_eq!((listed["issuer"].as_str(), listed["uses"].as_u64(), listed["state"].as_str()), (Some("code"), Some(3), Some("used-up")));
    assert!(!site.company.ask("lan1", "{\"get\":\"links\"}").await.to_string().contains(&code));
    site.stop().await;
}

#[tokio::test]
async fn an_admin_makes_lists_and_takes_back_a_code_at_the_command_line() {
    let site = Site::start().await;
    let made = site.cli(&["new", "--code", "--queue", "support", "--ttl", "1d", "--json"]).await;
    let made: Value = serde_json::from_str(&made).unwrap();
    let (code, jti) = (made["code"].as_str().unwrap(), made["jti"].as_str().unwrap());
    assert_eq!(made["contact"], "xmpp:support@localhost?message");
    let mut customer = site.customer(0).await;
    customer.log_in(code).await;
    customer.say("<presence/>").await;
    customer.until("This is lan1.").await;
    let listed = site.cli(&["list"]).await;
    let row: Vec<&str> = listed.lines().nth(1).unwrap().split_whitespace().collect();
    assert_eq!((&row[..5], row[6..].to_vec()), (&["used-up", "1", "of", "1", "yes"][..], vec!["support", "code", jti]), "{listed}");
    assert!(!listed.contains(code));
    let done = site.cli(&["revoke", jti, "--end"]).await;
    assert!(done.contains("1 session ended"), "{done}");
    customer.until("This link has been withdrawn").await;
    assert!(site.cli(&["list"]).await.contains("revoked  1 of 1"));
    site.stop().await;
}

#[tokio::test]
async fn who_guesses_codes_is_held_off_before_anyone_is_asked_and_others_come_in() {
    let site = Site::start().await;
    let code = site.make(json!({"queue": "support", "seconds": 3600, "max_sessions": 0})).await["code"].as_str().unwrap().to_owned();
    for n in 0..10_u32 {
        let guess = format!("1{n:025}");
        assert!(site.refused(0, "me", &guess).await.contains("<not-authorized/>"));
    }
    let asked = site.desk().await["counters"]["refused_for"]["code-wrong"].clone();
    assert_eq!(asked, 10);
    for guess in [format!("1{:025}", 99), code.clone()] {
        let refused = site.refused(0, "me", &guess).await;
        assert!(refused.contains("<temporary-auth-failure/>") && refused.contains("from your network"), "{refused}");
    }
    assert_eq!(site.desk().await["counters"]["refused_for"]["code-wrong"], asked, "nobody was asked");
    let reasons = site.relays[0].status().await.counts.reasons;
    assert_eq!(reasons["code-guesses"], 2);
    // Another network, and a signed link from the same one.
    let mut elsewhere = site.company.customer_from([127, 0, 1, 1], &site.relays[0]).await;
    elsewhere.log_in(&code).await;
    let mut linked = site.customer(0).await;
    linked.log_in(&site.company.link("support")).await;
    site.stop().await;
}

#[tokio::test]
async fn a_customer_comes_back_with_his_link_for_one_session_and_the_earlier_client_hears_conflict() {
    let site = Site::start().await;
    let mut claims = site.company.claims("support");
    claims.outgate.once = true;
    let link = site.company.key.mint(&claims).unwrap();
    let mut office = site.customer(0).await;
    office.log_in(&link).await;
    office.say("<enable xmlns='urn:xmpp:sm:3'/>").await;
    office.until("<enabled xmlns='urn:xmpp:sm:3'/>").await;
    office.say("<presence/>").await;
    let mut heard = office.until("</message>").await;
    for _ in 0..3 {
        office.say(HELLO).await;
        heard += &office.until("</message>").await;
    }
    // All that was said is confirmed: nothing of it is owed to anyone.
    let stanzas: usize = ["<message ", "<presence ", "<iq "].map(|stanza| heard.matches(stanza).count()).iter().sum();
    office.say(&format!("<a xmlns='urn:xmpp:sm:3' h='{stanzas}'/>")).await;
    site.company
        .until("lan1", "the office to have it all", |status| {
            let session = &status["sessions"][0];
            session["out_last"] == session["out_handled"]
        })
        .await;

    let mut home = site.customer(1).await;
    home.log_in(&link).await;
    home.say("<enable xmlns='urn:xmpp:sm:3'/>").await;
    home.until("<enabled").await;
    home.say("<presence/>").await;
    assert!(office.end().await.contains("<conflict xmlns="));
    // What he says has the session's next numbers, and its handling is told by his own count.
    home.say(&HELLO.replace("h1", "h9")).await;
    let heard = home.until("</body>").await;
    assert!(!heard.contains("This is lan1."), "what was said before is not shown: {heard}");
    home.say("<r xmlns='urn:xmpp:sm:3'/>").await;
    while !home.until("/>").await.contains("h='2'") {
        home.say("<r xmlns='urn:xmpp:sm:3'/>").await;
    }
    let status = site.desk().await;
    assert_eq!((status["counters"]["sessions_opened"].as_u64(), status["counters"]["links_continued"].as_u64()), (Some(1), Some(1)));
    assert_eq!(
        (status["sessions"][0]["in_handled"].as_u64(), status["sessions"][0]["attachment"].as_u64()),
        (Some(6), Some(2)),
        "{status}"
    );

    // His relay dies: he comes back through the other.
    let [first, second] = site.relays;
    second.stop().await;
    let mut again = site.company.customer(&first).await;
    again.open_stream().await;
    again.plain(&link).await;
    let answer = again.until_any(&["<success", "</failure>"]).await;
    // A relay that stops in order ends its sessions with a word; then the link is used up.
    assert!(answer.contains("used up"), "{answer}");
    first.stop().await;
}

impl Site {
    async fn start() -> Self {
        let company = Company::new();
        let relays = [company.relay("dmz1", &GRANTS), company.relay("dmz2", &GRANTS)];
        let tunnels: Vec<_> = relays.iter().map(|relay| relay.tunnel_address().unwrap()).collect();
        let connector = company.connector("lan1", &tunnels, &["hello", "support"]).await;
        company.until("lan1", "both policies to be held", all_pushed).await;
        Self { company, relays, _connector: connector }
    }

    async fn customer(&self, relay: usize) -> Customer {
        self.company.customer(&self.relays[relay]).await
    }

    async fn make(&self, wanted: Value) -> Value {
        self.company.ask("lan1", &json!({"do": {"make-code": wanted}}).to_string()).await
    }

    async fn desk(&self) -> Value {
        self.company.ask("lan1", "{\"get\":\"status\"}").await
    }

    /// Runs `outgate link` beside the roles; what it printed.
    async fn cli(&self, arguments: &[&str]) -> String {
        let socket = self.company.path("lan1.sock").to_str().unwrap().to_owned();
        let arguments: Vec<String> = [&["link"], arguments, &["--socket", &socket]].concat().into_iter().map(str::to_owned).collect();
        let run = move || crate::setup::outgate(&arguments.iter().map(String::as_str).collect::<Vec<_>>());
        tokio::task::spawn_blocking(run).await.unwrap()
    }

    /// A link as the connector lists it.
    async fn listed(&self, jti: &str) -> Value {
        let list = self.company.ask("lan1", "{\"get\":\"links\"}").await;
        list["links"].as_array().unwrap().iter().find(|link| link["jti"] == jti).unwrap_or(&list).clone()
    }

    /// Logs in in vain; what the client is told.
    async fn refused(&self, relay: usize, user: &str, password: &str) -> String {
        let mut customer = self.customer(relay).await;
        customer.open_stream().await;
        customer.plain_as(user, password).await;
        customer.until("</failure>").await
    }

    async fn stop(self) {
        for relay in self.relays {
            relay.stop().await;
        }
    }
}
