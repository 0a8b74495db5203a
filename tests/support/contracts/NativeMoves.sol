// SPDX-License-Identifier: MIT
pragma solidity ^0.8.20;

/// Passes on whatever it receives, as deposit addresses of exchanges and smart wallets do: a plain transfer to it pays another.
contract Forwarder {
    address payable private immutable target;

    constructor(address payable to) {
        target = to;
    }

    receive() external payable {
        (bool done, ) = target.call{value: msg.value}("");
        require(done, "refused");
    }
}

/// Pays in its constructor.
contract PaysWhenMade {
    constructor(address payable to) payable {
        (bool done, ) = to.call{value: msg.value}("");
        require(done, "refused");
    }
}

/// Run by delegatecall or callcode: the money is the caller's.
contract Library {
    function pay(address payable to, uint256 value) external payable {
        (bool done, ) = to.call{value: value}("");
        require(done, "refused");
    }
}

/// Native coin moved in every way that the transaction itself does not show.
contract NativeMoves {
    constructor() payable {}

    receive() external payable {}

    function pay(address payable to, uint256 value) public payable {
        (bool done, ) = to.call{value: value}("");
        require(done, "refused");
    }

    function payAndFail(address payable to, uint256 value) external payable {
        pay(to, value);
        revert("changed its mind");
    }

    /// The payment succeeds, its caller fails, the transaction succeeds all the same.
    function payUndone(address payable to, uint256 value) external payable {
        try this.payAndFail(to, value) {} catch {}
    }

    /// Calls that succeed all the way down to the payment, below one that fails.
    function payDeep(address payable to, uint256 value, uint256 depth) external {
        if (depth == 0) pay(to, value);
        else this.payDeep(to, value, depth - 1);
    }

    function payDeepAndFail(address payable to, uint256 value, uint256 depth) external {
        this.payDeep(to, value, depth);
        revert("changed its mind");
    }

    /// One payment undone by a grandparent, then one that stands.
    function payDeepUndone(address payable lost, address payable kept, uint256 value) external payable {
        try this.payDeepAndFail(lost, value, 3) {} catch {}
        this.payDeep(kept, value, 3);
    }

    function payByCreation(address payable to) external payable {
        new PaysWhenMade{value: msg.value}(to);
    }

    /// A contract is made with the value and destroys itself in favour of `to` at once.
    function payByDestruction(address to) external payable {
        bytes memory code = abi.encodePacked(hex"73", to, hex"ff");
        address made;
        assembly {
            made := create(callvalue(), add(code, 32), mload(code))
        }
        require(made != address(0), "refused");
    }

    /// One payment by a delegatecall of the whole value, which itself moves nothing, and one by callcode.
    function payByLibrary(address library_, address payable to, uint256 value) external payable {
        bytes memory data = abi.encodeCall(Library.pay, (to, value));
        (bool done, ) = library_.delegatecall(data);
        require(done, "refused");
        assembly {
            done := callcode(gas(), library_, value, add(data, 32), mload(data), 0, 0)
        }
        require(done, "refused");
    }

    /// A tenth of what it holds then: the same transaction pays something else when it is mined after others.
    function payTenth(address payable to) external {
        pay(to, address(this).balance / 10);
    }
}
