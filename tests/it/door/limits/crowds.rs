//! Crowds that come back after a start, and floods that do not come in with them.

use tokio::task::JoinSet;

use super::*;

const CROWD: usize = 200;

/// Far more than two hundred logins take, far less than anybody would wait.
const RETURNING: &str = "20s";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_hundred_behind_one_address_are_back_after_a_start_and_a_flood_from_there_is_not_let_in() {
    let company = Company::new();
    let relay = company.limited_relay("dmz1", &GRANTS, &format!("[limits]\nreturning = \"{RETURNING}\"\n"));
    let _connector = company.connector("lan1", &[relay.tunnel_address().unwrap()], &["hello", "support"]).await;
    company.until("lan1", "the tunnel", all_pushed).await;
    let company = std::sync::Arc::new(company);
    let door = relay.client_addresses()[0];
    let began = Instant::now();
    let mut arriving = JoinSet::new();
    for _customer in 0..CROWD {
        let company = std::sync::Arc::clone(&company);
        arriving.spawn(async move {
            let mut customer = company.customer_at(HERE, door).await;
            customer.log_in(&company.link("support")).await;
            customer
        });
    }
    let back = arriving.join_all().await;
    let status = company.until("dmz1", "all of them", |status| status["sessions"] == CROWD).await;
    eprintln!("{} of {CROWD} behind one address were back {:?} after they began", back.len(), began.elapsed());
    assert!(["address-rate", "network-rate", "gave-way", "address-full"].iter().all(|reason| count(&status, reason) == 0), "{status}");

    let over = async {
        while company.ask("dmz1", "{\"get\":\"status\"}").await["gate"]["is_returning"] == true {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    timeout(PATIENCE, over).await.unwrap();
    let mut flood = Vec::new();
    for _knock in 0..CROWD {
        flood.push(connect(HERE, &relay).await);
    }
    let refused = |status: &serde_json::Value| count(status, "address-rate");
    let status = company.until("dmz1", "the refusals", |status| refused(status) >= 160 && count(status, "gave-way") >= 16).await;
    eprintln!("of {CROWD} more from there {} were refused at once", refused(&status));
    assert_eq!(status["sessions"], CROWD, "who came back stays");
    assert!(status["before_login"].as_u64() <= Some(17), "{status}");
}
