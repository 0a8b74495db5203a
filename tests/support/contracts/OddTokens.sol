// SPDX-License-Identifier: MIT
pragma solidity ^0.8.20;

/// Says that a transfer failed without failing, as some old tokens do: no event, no movement.
contract FalseToken {
    string public constant name = "False Dollar";
    string public constant symbol = "FUSD";
    uint8 public constant decimals = 6;

    function transfer(address, uint256) external pure returns (bool) {
        return false;
    }
}

/// Refuses every transfer.
contract RevertingToken {
    uint8 public constant decimals = 6;

    function transfer(address, uint256) external pure returns (bool) {
        revert("frozen");
    }
}

/// Old style: its symbol is a bytes32, as that of some tokens of 2017.
contract OldToken {
    bytes32 public constant symbol = "OLD";
    uint8 public constant decimals = 18;
}

/// Emits ERC-721's Transfer: the topic of ERC-20's, with the token's number as a fourth topic.
contract Collectible {
    event Transfer(address indexed from, address indexed to, uint256 indexed tokenId);

    function transfer(address to, uint256 tokenId) external {
        emit Transfer(msg.sender, to, tokenId);
    }
}

/// Emits logs that look like ERC-20 transfers and are not.
contract MalformedEmitter {
    bytes32 private constant TRANSFER = keccak256("Transfer(address,address,uint256)");

    function shortData(address to) external {
        bytes32 from = _word(msg.sender);
        bytes32 receiver = _word(to);
        bytes32 topic = TRANSFER;
        assembly {
            mstore(0, not(0))
            log3(0, 31, topic, from, receiver)
        }
    }

    function extraData(address to) external {
        bytes32 from = _word(msg.sender);
        bytes32 receiver = _word(to);
        bytes32 topic = TRANSFER;
        assembly {
            mstore(0, 1000000)
            mstore(32, 0)
            log3(0, 64, topic, from, receiver)
        }
    }

    function noData(address to) external {
        bytes32 from = _word(msg.sender);
        bytes32 receiver = _word(to);
        bytes32 topic = TRANSFER;
        assembly {
            log3(0, 0, topic, from, receiver)
        }
    }

    /// All three values in the data, none indexed.
    function allInData(address to, uint256 value) external {
        bytes32 topic = TRANSFER;
        bytes memory data = abi.encode(msg.sender, to, value);
        assembly {
            log1(add(data, 32), mload(data), topic)
        }
    }

    /// The receiver's topic has something in front of the address.
    function dirtyTopic(address to, uint256 value) external {
        bytes32 from = _word(msg.sender);
        bytes32 receiver = _word(to) | bytes32(uint256(1) << 160);
        bytes32 topic = TRANSFER;
        assembly {
            mstore(0, value)
            log3(0, 32, topic, from, receiver)
        }
    }

    function _word(address account) private pure returns (bytes32) {
        return bytes32(uint256(uint160(account)));
    }
}
