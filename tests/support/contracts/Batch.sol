// SPDX-License-Identifier: MIT
pragma solidity ^0.8.20;

interface IToken {
    function transferFrom(address from, address to, uint256 value) external returns (bool);
}

/// Many payments in one transaction, as exchanges and payroll services make them.
contract Batch {
    /// Token payments: the caller must have approved this contract.
    function payTokens(address token, address[] calldata to, uint256[] calldata values) external {
        for (uint256 i = 0; i < to.length; i++) {
            require(IToken(token).transferFrom(msg.sender, to[i], values[i]), "refused");
        }
    }

    /// Native payments by inner calls: no log and no `to` of the transaction shows them.
    function payNative(address[] calldata to, uint256[] calldata values) external payable {
        for (uint256 i = 0; i < to.length; i++) {
            (bool done, ) = to[i].call{value: values[i]}("");
            require(done, "refused");
        }
    }

    /// Pays tokens and then fails, so that everything is undone.
    function payTokensAndFail(address token, address[] calldata to, uint256[] calldata values) external {
        for (uint256 i = 0; i < to.length; i++) {
            IToken(token).transferFrom(msg.sender, to[i], values[i]);
        }
        revert("changed its mind");
    }
}
