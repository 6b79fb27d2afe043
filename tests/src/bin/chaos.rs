//! The chaos table: what clients see while the gateway or Redis fails. `make chaos` runs it.

#[tokio::main]
async fn main() {
    tidegate_tests::chaos::table().await;
}
