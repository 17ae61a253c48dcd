// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.30;

import {Ownable, Ownable2Step} from "@openzeppelin/contracts/access/Ownable2Step.sol";

/// @title A contract whose owner changes in two steps and never goes.
abstract contract Owned is Ownable2Step {
    /// Without an owner nobody could take a stolen key's rights away.
    error OwnerNeeded();

    constructor() Ownable(msg.sender) {}

    function renounceOwnership() public pure override {
        revert OwnerNeeded();
    }
}
