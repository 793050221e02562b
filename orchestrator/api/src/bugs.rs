//! Mistakes of the pipeline that can be switched on, to see that the simulator finds them; see `podium_store::planted_bugs`.

podium_store::planted_bugs! {
    /// A cluster IP is given without looking whether it is taken.
    AddressReused = "address_reused",
    /// An update with a resourceVersion overwrites whatever is there.
    UpdateIgnoresResourceVersion = "update_ignores_resource_version",
    /// A deletion does not compare the uid that it is for.
    DeleteIgnoresUid = "delete_ignores_uid",
    /// A pod that has a node is bound again.
    BindOverwrites = "bind_overwrites",
    /// Objects are created in namespaces that are being deleted.
    CreateInTerminatingNamespace = "create_in_terminating_namespace",
    /// A node that follows is told what happened from one revision too far on.
    FeedSkipsRevision = "feed_skips_revision",
}
