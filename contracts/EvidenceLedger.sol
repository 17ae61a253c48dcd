// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.30;

/// @title Where posthorn anchors the Merkle roots of what it evidenced.
/// @notice Leaves form one sequence, numbered from 0. A batch is accepted only if it continues the sequence, so a
/// transaction that is sent again, or out of order, reverts: every leaf is anchored once and in order, whatever the
/// sender does. Roots are in the events; the contract keeps only how far it is.
contract EvidenceLedger {
    /// The only account that may anchor.
    address public immutable owner;
    /// Index of the first leaf that is not anchored yet.
    uint64 public next;

    /// `root` is the RFC 6962 root of the `count` leaves from index `first` on.
    event Anchored(uint64 indexed first, uint32 count, bytes32 indexed root);

    error NotOwner();
    /// A batch has at least one leaf.
    error EmptyBatch();
    /// The batch is anchored already, or leaves a gap.
    error OutOfOrder(uint64 next, uint64 first);

    constructor() {
        owner = msg.sender;
    }

    /// Anchors `count` leaves from index `first` on. A single mail is a batch of one: its root is its leaf.
    function anchor(uint64 first, uint32 count, bytes32 root) external {
        if (msg.sender != owner) revert NotOwner();
        if (count == 0) revert EmptyBatch();
        if (first != next) revert OutOfOrder(next, first);
        next = first + count;
        emit Anchored(first, count, root);
    }
}
