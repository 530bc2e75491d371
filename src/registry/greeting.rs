//! The smallest question: whether the registry is there, and whether it lets in who asks (OCI
//! distribution spec, "Determining Support"). It is sent once, and counted as no request: it is
//! about no repository.

use super::Greeting;
use super::outage::Route;
use super::remote::Remote;
use super::request::Question;
use super::retry::Fault;
use super::scope::TokenScope;
use super::transport::Count;

impl Remote {
    pub(super) async fn greeted(&self, greeting: Greeting) -> Result<(), Fault> {
        let question = Question::get(self.url("")?, "application/json", TokenScope::Registry);
        let question = Question { count: Count::Nothing, ..question };
        let mut patience = self.requester.patience();
        match greeting {
            Greeting::Reach => {
                let route = Route {
                    registry: self.requester.registry.clone(),
                    scope: TokenScope::Registry,
                };
                self.requester.hops(&question, &route, None, &patience).await.map(drop)
            }
            Greeting::LogIn => self.requester.ask(&question, &mut patience).await.map(drop),
        }
    }
}
