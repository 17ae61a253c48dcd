// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.30;

import {Owned} from "./Owned.sol";

/// @title Who may ask and order.
/// @notice Senders are keyed digests (HMAC-SHA256) of addresses or of domains: who reads the chain learns no address, and
/// cannot try addresses without the key.
/// @dev The owner only names the accounts that register, so its key need not be on any vehicle.
contract SenderRegistry is Owned {
    uint256 public constant VERSION = 2;

    /// May ask.
    uint8 public constant OBSERVER = 1;
    /// May ask and order.
    uint8 public constant OPERATOR = 2;

    /// Times are seconds since 1970. Those of what was done are of its block; whoever asks compares the others with now.
    struct Sender {
        /// 0: revoked without ever having been registered, or not known.
        uint8 role;
        /// When it was registered last; 0: never.
        uint48 registeredAt;
        /// When it was revoked; 0: not since it was registered.
        uint48 revokedAt;
        /// From when on it counts; 0: from the registration on.
        uint48 validFrom;
        /// From when on it counts no more; 0: never.
        uint48 validUntil;
        /// SHA-256 of the public DKIM key that must sign its mails, the bytes of the tag `p=`; 0: any.
        bytes32 dkimKeyHash;
    }

    /// Accounts that may register and revoke.
    mapping(address => bool) public isRegistrar;
    mapping(bytes32 => Sender) private senders;
    /// Every digest that `senders` has, in the order of their coming.
    bytes32[] private digests;

    event RegistrarChanged(address indexed registrar, bool isRegistrar);
    event Registered(
        bytes32 indexed senderDigest, uint8 role, uint48 validFrom, uint48 validUntil, bytes32 dkimKeyHash
    );
    event Revoked(bytes32 indexed senderDigest);

    error NotRegistrar(address account);
    /// The role is neither OBSERVER nor OPERATOR.
    error BadRole(uint8 role);
    /// It ends before it begins.
    error BadValidity(uint48 validFrom, uint48 validUntil);
    /// The sender was revoked since, or registered since.
    error Outdated(uint48 revokedAt, uint48 known);

    modifier onlyRegistrar() {
        if (!isRegistrar[msg.sender]) revert NotRegistrar(msg.sender);
        _;
    }

    /// Who deploys it owns it, and `registrar` registers.
    constructor(address registrar) {
        _setRegistrar(registrar, true);
    }

    /// Lets an account register and revoke, or not any more.
    function setRegistrar(address account, bool may) external onlyOwner {
        _setRegistrar(account, may);
    }

    /// Registers a sender, or changes what is registered of one, and ends the revocation that the caller knows of:
    /// `revokedAt` is what `find` has of the sender. A later one, by whatever registrar, is not ended: it would be by
    /// accident.
    function register(
        bytes32 senderDigest,
        uint8 role,
        uint48 validFrom,
        uint48 validUntil,
        bytes32 dkimKeyHash,
        uint48 revokedAt
    ) external onlyRegistrar {
        if (role != OBSERVER && role != OPERATOR) revert BadRole(role);
        if (validUntil != 0 && validUntil <= validFrom) revert BadValidity(validFrom, validUntil);
        uint48 current = senders[senderDigest].revokedAt;
        if (current != revokedAt) revert Outdated(current, revokedAt);
        _note(senderDigest);
        senders[senderDigest] = Sender(role, uint48(block.timestamp), 0, validFrom, validUntil, dkimKeyHash);
        emit Registered(senderDigest, role, validFrom, validUntil, dkimKeyHash);
    }

    /// Takes every right from a sender, also from one that was never registered or is revoked already: whoever wants a
    /// sender out need not know what it has, and an address can be taken out of a domain that is registered.
    function revoke(bytes32 senderDigest) external onlyRegistrar {
        _note(senderDigest);
        senders[senderDigest].revokedAt = uint48(block.timestamp);
        emit Revoked(senderDigest);
    }

    /// The time of the newest block, and what is known of each of these, all zero for who is not known. A revoked sender
    /// keeps the role it had: look at `revokedAt`.
    function find(bytes32[] calldata wanted) external view returns (uint256 time, Sender[] memory found) {
        time = block.timestamp;
        found = new Sender[](wanted.length);
        for (uint256 i = 0; i < wanted.length; i++) {
            found[i] = senders[wanted[i]];
        }
    }

    /// How many senders were ever registered or revoked, and at most `limit` of them from place `first` on, in the order
    /// of their coming.
    function list(uint256 first, uint256 limit)
        external
        view
        returns (uint256 count, bytes32[] memory listed, Sender[] memory found)
    {
        count = digests.length;
        uint256 rest = first < count ? count - first : 0;
        uint256 length = rest < limit ? rest : limit;
        listed = new bytes32[](length);
        found = new Sender[](length);
        for (uint256 i = 0; i < length; i++) {
            listed[i] = digests[first + i];
            found[i] = senders[listed[i]];
        }
    }

    function _note(bytes32 senderDigest) private {
        Sender storage entry = senders[senderDigest];
        if (entry.registeredAt == 0 && entry.revokedAt == 0) digests.push(senderDigest);
    }

    function _setRegistrar(address account, bool may) private {
        isRegistrar[account] = may;
        emit RegistrarChanged(account, may);
    }
}
