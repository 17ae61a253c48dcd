// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.30;

import {Owned} from "./Owned.sol";

/// @title Where posthorn anchors the Merkle roots of what it evidenced.
/// @notice Leaves form one sequence, numbered from 0. A batch is accepted only if it continues the sequence, so a
/// transaction that is sent again, or out of order, reverts: every leaf is anchored once and in order, whatever the
/// sender does. Roots are in the events; the contract keeps only how far it is.
/// @dev The owner only names the account that anchors, so its key need not be on any vehicle.
contract EvidenceLedger is Owned {
    uint256 public constant VERSION = 2;

    /// The only account that may anchor. One slot with `next`, so that an anchor reads and writes one.
    address public anchorer;
    /// Index of the first leaf that is not anchored yet.
    uint64 public next;

    /// `root` is the RFC 6962 root of the `count` leaves from index `first` on.
    event Anchored(uint64 indexed first, uint32 count, bytes32 indexed root);
    event AnchorerChanged(address indexed anchorer);

    error NotAnchorer(address account);
    /// A batch has at least one leaf.
    error EmptyBatch();
    /// The batch is anchored already, or leaves a gap.
    error OutOfOrder(uint64 next, uint64 first);

    /// Who deploys it owns it, and anchors.
    constructor() {
        _setAnchorer(msg.sender);
    }

    /// Has another account anchor, from now on and instead of the one before; 0: none.
    function setAnchorer(address account) external onlyOwner {
        _setAnchorer(account);
    }

    /// Anchors `count` leaves from index `first` on. A single mail is a batch of one: its root is its leaf.
    function anchor(uint64 first, uint32 count, bytes32 root) external {
        if (msg.sender != anchorer) revert NotAnchorer(msg.sender);
        if (count == 0) revert EmptyBatch();
        if (first != next) revert OutOfOrder(next, first);
        next = first + count;
        emit Anchored(first, count, root);
    }

    function _setAnchorer(address account) private {
        anchorer = account;
        emit AnchorerChanged(account);
    }
}
