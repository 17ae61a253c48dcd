// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.30;

/// @title Who may ask and order.
/// @notice Senders are keyed digests (HMAC-SHA256) of addresses: who reads the chain learns no address, and cannot
/// try addresses without the key.
contract SenderRegistry {
    /// May ask.
    uint8 public constant OBSERVER = 1;
    /// May ask and order.
    uint8 public constant OPERATOR = 2;

    struct Sender {
        uint8 role;
        /// Block time [s] of the latest registration; 0: never registered.
        uint64 registeredAt;
        /// Block time [s] of the revocation; 0: not revoked.
        uint64 revokedAt;
        /// Digest of the DKIM key the sender must sign with; 0: any.
        bytes32 dkimKeyHash;
    }

    /// The only account that may register and revoke.
    address public immutable owner;
    mapping(bytes32 => Sender) private senders;

    event Registered(bytes32 indexed senderDigest, uint8 role, bytes32 dkimKeyHash);
    event Revoked(bytes32 indexed senderDigest);

    error NotOwner();
    /// The role is neither OBSERVER nor OPERATOR.
    error BadRole(uint8 role);
    /// The sender is not registered, or revoked already.
    error NotRegistered(bytes32 senderDigest);

    modifier onlyOwner() {
        if (msg.sender != owner) revert NotOwner();
        _;
    }

    constructor() {
        owner = msg.sender;
    }

    /// Registers a sender, or changes role and key of one, and ends a revocation.
    function register(bytes32 senderDigest, uint8 role, bytes32 dkimKeyHash) external onlyOwner {
        if (role != OBSERVER && role != OPERATOR) revert BadRole(role);
        senders[senderDigest] = Sender(role, uint64(block.timestamp), 0, dkimKeyHash);
        emit Registered(senderDigest, role, dkimKeyHash);
    }

    /// Takes every right from a sender and remembers that it had some.
    function revoke(bytes32 senderDigest) external onlyOwner {
        Sender storage entry = senders[senderDigest];
        if (entry.registeredAt == 0 || entry.revokedAt != 0) revert NotRegistered(senderDigest);
        entry.revokedAt = uint64(block.timestamp);
        emit Revoked(senderDigest);
    }

    /// All zero for who was never registered. A revoked sender keeps the role it had: look at `revokedAt`.
    function sender(bytes32 senderDigest)
        external
        view
        returns (uint8 role, uint64 registeredAt, uint64 revokedAt, bytes32 dkimKeyHash)
    {
        Sender storage entry = senders[senderDigest];
        return (entry.role, entry.registeredAt, entry.revokedAt, entry.dkimKeyHash);
    }
}
